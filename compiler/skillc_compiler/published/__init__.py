"""Published hypernetworks: their checkpoints read safely and converted to compilers of ours."""
