"""`gradcam compare`: two models on a folder of pictures, where attention moved, worst first."""
