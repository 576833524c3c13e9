"""OpenVINO on CPUs: bf16 where the processor supports it, on Intel and AMD."""
