"""Every decision of the audit service: leaves, Merkle arithmetic, tiles, checkpoints, what comes next. Pure, no I/O."""
