"""Three small image generators, one a family: a GAN, a diffusion model and a VAE.

``python -m dfl.demo.generators.train`` trains one and writes the sheets of ``dfl/demo/images``.
"""
