"""Ask the Flow, a text in and a picture out: python -m jina_asgi.compat flow_client.py"""

from docarray import DocList
from docarray.documents import ImageDoc
from executor import Prompt
from jina import Client
from PIL import Image

client = Client(port=12345)
prompt = Prompt(text="A lighthouse at night,")
pictures = client.post(on="/", inputs=[prompt], return_type=DocList[ImageDoc])
Image.fromarray(pictures[0].tensor).save("lighthouse.png")
