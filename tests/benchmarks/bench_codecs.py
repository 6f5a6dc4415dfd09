"""Documents to bytes and back: 100 of a text and 768 float32, beside bare orjson and docarray's protobuf.

Our protobuf is the same bytes as docarray's, but for the order of the fields; each reads what the other wrote.

python tests/benchmarks/bench_codecs.py --seconds 0.1 --rounds 15
"""

from typing import Annotated

import numpy as np
import orjson
from docarray import BaseDoc, DocList
from docarray.proto import DocListProto
from docarray.typing import NdArray
from micro import Pair, parser, plain, table
from work import DIM

from jina_asgi.documents import codec as documents_codec
from jina_asgi.documents import msgpack, schemas
from jina_asgi.protocols.protobuf.documents import wire
from jina_asgi.settings import Limits

COUNT = 100
LIMITS = Limits()


class Passage(BaseDoc):
    text: str
    vector: Annotated[NdArray[DIM], np.float32]  # type: ignore[valid-type]


def pairs() -> list[Pair]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((COUNT, DIM), dtype=np.float32)
    docs = DocList[Passage]([Passage(text=f"passage {i}", vector=vector) for i, vector in enumerate(vectors)])
    fields = [{"id": str(doc.id), "text": doc.text, "vector": np.asarray(doc.vector)} for doc in docs]
    codec = documents_codec.codec(schemas.schema_of(Passage))
    json = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
    buffers = codec.encode(docs)
    columns = msgpack.pack(codec.to_columns(docs))
    proto = docs.to_protobuf().SerializeToString()
    ours = wire(codec)
    one = docs[:1]
    one_proto = one.to_protobuf().SerializeToString()
    assert DocListProto.FromString(ours.write(docs)) == docs.to_protobuf()

    read = codec.read(orjson.loads(json), owned=True)
    assert codec.dumps(codec.to_json(docs)) == json
    for other in (
        read,
        codec.decode(buffers),
        codec.from_columns(msgpack.unpack(columns)),
        ours.read(proto, LIMITS),
    ):
        assert [doc.id for doc in other] == [doc.id for doc in docs]
        assert all(
            np.array_equal(a.vector, b.vector) and a.vector.dtype == np.float32
            for a, b in zip(other, docs, strict=True)
        )

    loads = plain(lambda: orjson.loads(json))
    dump = plain(lambda: orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
    from_protobuf = plain(lambda: DocList[Passage].from_protobuf(DocListProto.FromString(proto)))
    to_protobuf = plain(lambda: docs.to_protobuf().SerializeToString())
    from_one = plain(lambda: DocList[Passage].from_protobuf(DocListProto.FromString(one_proto)))
    to_one = plain(lambda: one.to_protobuf().SerializeToString())
    return [
        Pair("protobuf in", plain(lambda: ours.read(proto, LIMITS)), "docarray's protobuf", from_protobuf),
        Pair("protobuf out", plain(lambda: ours.write(docs)), "docarray's protobuf", to_protobuf),
        Pair("protobuf in, one document", plain(lambda: ours.read(one_proto, LIMITS)), "docarray's protobuf", from_one),
        Pair("protobuf out, one document", plain(lambda: ours.write(one)), "docarray's protobuf", to_one),
        Pair("JSON in", plain(lambda: codec.read(orjson.loads(json), owned=True)), "orjson.loads", loads),
        Pair("JSON out", plain(lambda: codec.dumps(codec.to_json(docs))), "orjson's numpy dump", dump),
        Pair("msgpack in", plain(lambda: codec.decode(buffers)), "docarray's protobuf", from_protobuf),
        Pair("msgpack out", plain(lambda: codec.encode(docs)), "docarray's protobuf", to_protobuf),
        Pair(
            "columns in",
            plain(lambda: codec.from_columns(msgpack.unpack(columns))),
            "docarray's protobuf",
            from_protobuf,
        ),
        Pair(
            "columns out",
            plain(lambda: msgpack.pack(codec.to_columns(docs))),
            "docarray's protobuf",
            to_protobuf,
        ),
    ]


if __name__ == "__main__":
    print(table(f"{COUNT} documents of a text and {DIM} float32", pairs(), parser(__doc__).parse_args()), flush=True)
