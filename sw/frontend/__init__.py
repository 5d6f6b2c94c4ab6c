"""From a PyTorch module to a chain of fused float layers."""
