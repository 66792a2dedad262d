"""upscaled: self-hosted image upscaling behind the hosted `POST /v1/upscale` contract."""

__version__ = "0.1.0"
