"""The parts of heads in torch, without Lightning: layers and losses."""
