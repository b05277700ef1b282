"""The study: a grid of detectors, each trained on some datasets and tested on all of them."""
