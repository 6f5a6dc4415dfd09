"""A picture for each text that the language model wrote."""

import numpy as np
import torch
from diffusers import DiffusionPipeline
from docarray import DocList
from docarray.documents import ImageDoc
from executor import Generation
from jina import Executor, requests


class TextToImage(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipe = DiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5").to(device)

    @requests
    def generate_image(self, docs: DocList[Generation], **kwargs) -> DocList[ImageDoc]:
        images = self.pipe(docs.text, num_inference_steps=20).images
        return DocList[ImageDoc](ImageDoc(tensor=np.array(image)) for image in images)
