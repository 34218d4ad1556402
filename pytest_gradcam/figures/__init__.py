"""`gradcam explain`: figures for slides. What a model reads of a picture, or by many methods and layers."""
