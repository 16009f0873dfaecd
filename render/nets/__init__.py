"""Networks shared by the methods: encodings, per-point MLPs, KFN and the gated U-Net."""
