"""OpenVINO on CPUs: bf16 where the processor has arithmetic for it, whoever made the processor."""
