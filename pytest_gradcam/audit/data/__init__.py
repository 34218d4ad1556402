"""What an audit reads: data sets, by path or as objects, image by image as `Sample`. Nothing here knows a model."""
