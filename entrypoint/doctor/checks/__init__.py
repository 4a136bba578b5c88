"""
Every check of the doctor: a function of facts that returns a problem or None.

Checks of driver, GPUs, limits and host take (Host, HostRequirements), the first two for a plan that needs GPUs only;
topology takes (Topology, HostRequirements), collective an AllReduceResult, and the checks of a checkpoint
(Checkpoint, CheckpointRequirements).
"""
