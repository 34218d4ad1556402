"""The embedded example: two tiny trained models, the photos they saw, and the test file that tells them apart.

`pictures` composes the photos, `models` loads the classifiers, `test_demo.py` is the test file that a user would write,
`session` runs it for `gradcam demo`. Importing this package imports none of them.
"""
