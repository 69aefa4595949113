"""The one training loop, on Accelerate; cross-validation, probes beside a training of others."""
