"""The commands about baselines, one module each: `gradcam approve`, `review` and `diff`."""
