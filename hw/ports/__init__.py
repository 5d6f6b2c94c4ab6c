"""The accelerator as a peripheral of a system on a chip."""
