from .base import Reconstructor as Reconstructor
from .diffusers import DiffusersAutoencoder as DiffusersAutoencoder
from .mixing import Mixing as Mixing
from .random_autoencoder import RandomAutoencoder as RandomAutoencoder
from .taef2 import Taef2 as Taef2
from .upscaler import Upscaler as Upscaler
