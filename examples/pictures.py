"""A picture in a form, as curl and pages send it. Typed in this folder: gunicorn pictures:asgi

curl -s localhost:8000/sizes -F image=@mark.png -F caption='a mark'
curl -s 'localhost:8000/brightness' -H 'content-type: image/png' --data-binary @mark.png
"""

from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel

from jina_asgi import Executor, JinaASGI, requests


class Photo(BaseModel):
    image: bytes
    caption: str = ""


class Pixels(BaseDoc):
    pixels: NdArray  # height, width, channels


class Text(BaseModel):
    text: str


class Brightness(BaseModel):
    brightness: float


class Gallery(Executor):
    @requests(on="/sizes")
    def sizes(self, docs: list[Photo]) -> list[Text]:
        """The size of each file."""
        return [Text(text=f"{doc.caption}: {len(doc.image)} bytes") for doc in docs]

    @requests(on="/brightness")
    def brightness(self, docs: DocList[Pixels]) -> list[Brightness]:
        """How bright each picture is, from 0 to 255."""
        return [Brightness(brightness=float(doc.pixels.mean())) for doc in docs]


asgi = JinaASGI(Gallery, title="Gallery")
