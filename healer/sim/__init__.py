"""The simulated fleet: GPUs with physics, jobs, their exporters and agents over HTTP, faults, and a local Slack.

For demos, drills, tests, benchmarks and training data. What is simulated is the outside world: the rest of healer meets
it as it would meet a real one, over HTTP or as telemetry. So nothing of healer that judges or acts is imported here,
but for `training` and `cluster`, which bring the two together.

    world     the machines and how they go on by a step: physics, heat, air, work, links, supply, turned by knobs
    strikes   what each kind of fault turns, and what is true of it
    fleet     a world to live with: its time passes, faults are injected, it is served
    jobs      what runs on a fleet over a day
    exporters what is shown of a world, by which names, and what a Prometheus has of it
    days      random days with all of this, their truth, and their history
"""
