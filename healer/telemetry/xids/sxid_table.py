"""The SXIDs of NVSwitches as a table: facts, one SXID a line.

Columns: code, whether it is fatal (always, perhaps, never), name.
Source: NVIDIA's Fabric Manager user guide, its lists of SXIDs, 2026.
"""

from __future__ import annotations

SXIDS = """\
10001 perhaps Host_priv_error
10002 perhaps Host_priv_timeout
10003 always Host_unhandled_interrupt
10004 perhaps Host_thermal_event_start
10005 perhaps Host_thermal_event_end
11001 perhaps ingress invalid command
11004 never Ingress invalid ACL
11009 perhaps ingress invalid VCSet
11012 never Single bit ECC errors
11013 perhaps ingress header DBE
11018 perhaps ingress RID DBE
11019 perhaps ingress RLAN DBE
11020 perhaps ingress control parity
11021 never Single bit ECC errors
11022 never Single bit ECC errors
11023 never Single bit ECC errors
12001 perhaps egress crossbar overflow
12002 perhaps egress packet route
12020 always egress sequence ID error
12021 never Single bit ECC errors
12022 perhaps egress input ECC DBE error
12023 never Single bit ECC errors
12024 perhaps egress output ECC DBE error
12025 perhaps egress credit overflow
12026 perhaps egress destination request ID error
12027 perhaps egress destination response ID error
12028 never egress nonposted PRIV error
12030 perhaps egress control parity error
12031 perhaps egress credit parity error
12032 perhaps egress flit type mismatch
14017 perhaps TS ATO timeout
15001 perhaps route buffer over/underflow
15006 perhaps route transdone over/underflow
15008 never Single bit ECC errors
15009 perhaps route GLT DBE
15010 perhaps route parity
15011 never Single bit ECC errors
15012 perhaps route incoming DBE
15013 perhaps route credit parity
19047 perhaps NCISOC HDR ECC DBE Error
19048 perhaps NCISOC DAT ECC DBE Error
19049 never Single bit ECC errors
19054 perhaps HDR RAM ECC DBE Error
19055 never Single bit ECC errors
19056 perhaps DAT0 RAM ECC DBE Error
19057 never Single bit ECC errors
19058 perhaps DAT1 RAM ECC DBE Error
19059 never Single bit ECC errors
19060 perhaps CREQ RAM HDR ECC DBE Error
19061 perhaps CREQ RAM DAT ECC DBE Error
19062 never Single bit ECC errors
19063 perhaps Response RAM HDR ECC DBE Error
19064 perhaps Response RAM DAT ECC DBE Error
19065 never Single bit ECC errors
19066 perhaps COM RAM HDR ECC DBE Error
19067 perhaps COM RAM DAT ECC DBE Error
19068 never Single bit ECC errors
19069 perhaps RSP1 RAM HDR ECC DBE Error
19070 perhaps RSP1 RAM DAT ECC DBE Error
19071 never Single bit ECC errors
19084 never AN1 Heartbeat Timeout Error
20001 never TX Replay Error
20009 never RX Short Error Rate
20012 never Broken/inconsistent connection
20034 perhaps LTSSM Fault Up
22003 always Minion Halt
22011 always Minion exterror
22013 never Minion Link DLREQ interrupt
23001 always ingress SRC-VC buffer overflow
23002 always ingress SRC-VC buffer underflow
23003 always egress DST-VC credit overflow
23004 always egress DST-VC credit underflow
23005 always ingress packet burst error
23006 always ingress packet sticky error
23007 always possible bubbles at ingress
23008 always ingress packet invalid dst error
23009 always ingress packet parity error
23010 always ingress SRC-VC buffer overflow
23011 always ingress SRC-VC buffer underflow
23012 always egress DST-VC credit overflow
23013 always egress DST-VC credit underflow
23014 always ingress packet burst error
23015 always ingress packet sticky error
23016 always possible bubbles at ingress
23017 always ingress credit parity error
24001 never Single bit ECC errors
24002 never Single bit ECC errors
24003 never Single bit ECC errors
24004 perhaps sourcetrack TCEN0 crubmstore DBE
24005 perhaps sourcetrack TCEN0 TD crubmstore DBE
24006 perhaps sourcetrack TCEN1 crubmstore DBE
24007 perhaps sourcetrack timeout error
"""
