"""`python -m jina_asgi`: the command `jina-asgi`."""

from jina_asgi.cli import main

if __name__ == "__main__":
    main()
