"""Bodies that no client of good will sends: no JSON, JSON of another form, large and wrong, heavy."""

from __future__ import annotations

from tests.doubles.hostile_documents import doc

NO_JSON = {
    "empty": b"",
    "blank": b"  ",
    "cut off": b'{"data":[',
    "trailing": b'{"data":[]} x',
    "trailing NUL": b'{"data":[]}\0',
    "trailing comma": b'{"data":[],}',
    "NUL in text": b'{"data":[{"text":"\0"}]}',
    "BOM": b'\xef\xbb\xbf{"data":[]}',
    "UTF-16": '{"data":[]}'.encode("utf-16"),
    "no UTF-8": doc('"text":"?"').replace(b"?", b"\xff"),
    "surrogate": doc(r'"text":"\ud800"'),
    "surrogate in a key": doc(r'"\ud800":1'),
    "raw surrogate": doc('"text":"?"').replace(b"?", b"\xed\xa0\x80"),
    "NaN": doc('"f":NaN'),
    "Infinity": doc('"f":Infinity'),
    "-Infinity": doc('"f":-Infinity'),
    "NaN among unknown fields": doc('"unknown":NaN'),
    "1e400": doc('"f":1e400'),
    "1E+400": doc('"f":1E+400'),
    "-1e400": doc('"f":-1e400'),
    "1e400 among unknown fields": doc('"unknown":[1e400]'),
    "100,000 digits": doc('"n":' + "9" * 10**5),
    "400 digits and a fraction": doc('"f":' + "9" * 400 + ".5"),
    "deep lists": b'{"data":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
    "deep objects": b'{"data":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "lists without an end": b"[" * 10**5,
}

OTHER_FORMS = [b"null", b"[]", b"1", b'"a"', b"true", b"{}", b'{"docs":[]}', b'{"data":null}', b'{"data":1}']
OTHER_FORMS += [b'{"data":"abc"}', b'{"data":true}', b'{"data":[1]}', b'{"data":[null]}', b'{"data":[[]]}']
OTHER_FORMS += [b'{"data":[],"parameters":%s}' % bad for bad in (b"[]", b'"a"', b"1", b"true")]
OTHER_FORMS += [b'{"data":[],"header":%s}' % bad for bad in (b"[]", b'"a"', b"{}", b'{"request_id":1}')]
OTHER_FORMS += [doc(f'"{name}":{bad}') for name, bad in [("n", '"x"'), ("n", "1.5"), ("n", "null"), ("n", "{}")]]
OTHER_FORMS += [doc(f'"text":{bad}') for bad in ("1", "[]", "{}", "null", "true")]
OTHER_FORMS += [doc(f'"f":{bad}') for bad in ('"x"', "[]", "null")]

LARGE = "x" * 10**6
LARGE_AND_WRONG = {
    "number": doc(f'"n":"{LARGE}"'),
    "object": doc(f'"n":{{"a":"{LARGE}"}}'),
    "keys": doc('"text":{' + ",".join(f'"k{i}":{i}' for i in range(10**5)) + "}"),
    "items": doc('"l":[' + ",".join(['"a"'] * 10**5) + "]"),
    "some items": doc('"l":[' + ",".join([f'"{LARGE[:9000]}"'] * 120) + "]"),
    "data": b'{"data":"%s"}' % LARGE.encode(),
    "header": b'{"data":[],"header":{"request_id":["%s"]}}' % LARGE.encode(),
    "docs": b'{"data":[' + b",".join([b'{"n":"x"}'] * 9000) + b"]}",
    "tensor": doc('"v":[' + ",".join(['"a"'] * 10**5) + "]"),
    "tensor of texts": doc(f'"v":["{LARGE}"]'),
    "dtype": doc(f'"v":{{"data":"","dtype":"{LARGE}"}}'),
    "shape": doc('"v":{"data":"","dtype":"f4","shape":[' + ",".join("1" * 10**5) + "]}"),
}

HEAVY = {
    **{f"deep: {name}": raw for name, raw in NO_JSON.items() if len(raw) > 10**4},
    **LARGE_AND_WRONG,
    "10^6 keys": doc(",".join(f'"k{i}":1' for i in range(10**6))),
    "10^6 keys beside": b'{"data":[],%s}' % ",".join(f'"k{i}":1' for i in range(10**6)).encode(),
    "10^5 docs": b'{"data":[' + b",".join([b"{}"] * 10**5) + b"]}",
    "10^5 empty lists": doc('"v":[' + "[]," * 10**5 + "[]]"),
    "10^5 lists, one longer": doc('"v":[' + "[1]," * 10**5 + "[1,2]]"),
    "shape over all memory": doc('"v":{"data":"","dtype":"f4","shape":[1000000,1000000]}'),
    "shape over 64 bits": doc('"v":{"data":"","dtype":"f4","shape":[9223372036854775808]}'),
    "shape that overflows": doc('"v":{"data":"","dtype":"f4","shape":[4294967296,4294967296]}'),
}
