"""The embedded demo: photographs out of installed wheels, and imitations that dfl ships.

It shows the whole way from images to a tested detector without a download. Its fakes come from
three tiny generators at 64 pixels: a detector trained on it knows nothing about today's generators.
"""

from dfl.demo.contact_sheet import draw_contact_sheet
from dfl.demo.dataset import FAMILIES, write_demo
from dfl.demo.photographs import PHOTOGRAPHS, Photograph
from dfl.demo.source import DemoImages
from dfl.demo.weights import MODEL_NAME, demo_weights

__all__ = [
    "FAMILIES",
    "MODEL_NAME",
    "PHOTOGRAPHS",
    "DemoImages",
    "Photograph",
    "demo_weights",
    "draw_contact_sheet",
    "write_demo",
]
