"""The kernel for GPUs of NVIDIA, and how it is compiled."""
