"""What jobs say from inside about a stalled collective: NCCL RAS, PyTorch's Flight Recorder, the watchdog's log lines.

All of it is written by processes that run other people's code: everything is read within bounds, and nothing is run.
"""
