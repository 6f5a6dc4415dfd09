"""Pictures from text with diffusers: an Executor around any of its text-to-image pipelines, on CPU or GPU."""

try:
    from .documents import Drawing, Picture, Prompt
    from .executor import TextToImage
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"jina_asgi.contrib.text_to_image needs {missing.name}; install it with: pip install 'jina-asgi[image]'",
        name=missing.name,
    ) from missing

__all__ = ["Drawing", "Picture", "Prompt", "TextToImage"]
