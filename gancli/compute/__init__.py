"""Where numbers are computed: devices, ranks, memory, random numbers."""
