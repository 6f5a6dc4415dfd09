"""Ask the language model: python -m jina_asgi.compat client.py"""

from docarray import DocList
from executor import Generation, Prompt
from jina import Client

client = Client(port=12345)
prompt = Prompt(text="A lighthouse at night,")
answers = client.post(on="/", inputs=[prompt], return_type=DocList[Generation])
print(answers[0].text)
