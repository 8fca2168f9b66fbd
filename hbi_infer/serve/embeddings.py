"""Vectors of texts and pictures, in the shape of OpenAI's API.

A vector is pooled: the weighted mean of the tokens of all levels. The service itself searches with all tokens, which
say more; the response says so.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hbi_infer.serve.bodies import read_json
from hbi_infer.serve.fields import Fields
from hbi_infer.serve.job_queue import Job
from hbi_infer.serve.library import Collection
from hbi_infer.serve.problems import Problem, bad_input
from hbi_infer.serve.searching import tokens_of_picture
from hbi_infer.serve.service import Service, service_of

MOST_PICTURES = 4
POOLING = "weighted mean of the tokens of all levels; the service searches with the tokens themselves"
_PICTURE = "data:image/"


async def embeddings(request: Request) -> Response:
    """Gives a vector for each text, or picture as a data URL."""
    service = service_of(request)
    limits = service.options.limits
    document = await read_json(request, limits, most_bytes=limits.picture_bytes)
    fields = Fields(document, ("collection", "input", "model", "encoding_format", "user"))
    inputs = fields.texts("input", most=limits.picture_bytes, most_texts=limits.texts)
    as_base64 = fields.choice("encoding_format", "float", ("float", "base64")) == "base64"
    collection = _collection(service, fields)
    _check(inputs, limits.text_letters)
    texts = tuple(text for text in inputs if not text.startswith(_PICTURE))
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    num_tokens = 0
    if texts:
        encoded = await service.encode(collection, texts)
        pooled = collection.model.scoring.pooled(encoded.levels)
        places = [place for place, text in enumerate(inputs) if not text.startswith(_PICTURE)]
        vectors |= dict(zip(places, pooled, strict=True))
        num_tokens = int(encoded.batch.mask.sum())
    pictures = {place: text for place, text in enumerate(inputs) if text.startswith(_PICTURE)}
    if pictures:
        vectors |= await service.uploads.run(
            request,
            lambda job: _of_pictures(collection, pictures, job),
            seconds=limits.request_seconds,
            stage="picture",
        )
    return JSONResponse(_document(collection, [vectors[place] for place in range(len(inputs))], num_tokens, as_base64))


def _collection(service: Service, fields: Fields) -> Collection:
    """Returns the collection whose model is meant: by its id, or by the name or hash of the model."""
    given = fields.text_or_none("collection", most=100)
    name = fields.text_or_none("model", most=500)
    if given is not None or name is None:
        return service.library.collection(given)
    models = {each.model.bundle.manifest.name: each for each in service.library.collections.values()}
    hashes = {each.model.bundle.sha256: each for each in service.library.collections.values()}
    if name not in models | hashes:
        detail = f"there is no model {name[:60]!r}; there are: {', '.join(sorted(models))}"
        raise Problem(404, "not-found", "Not found", detail)
    return (models | hashes)[name]


def _check(inputs: list[str], most_letters: int) -> None:
    if not inputs or not all(text.strip() for text in inputs):
        raise bad_input("input is empty: give a text, a picture as a data URL, or a list of them")
    if any(len(text) > most_letters and not text.startswith(_PICTURE) for text in inputs):
        raise bad_input(f"a text of input has more than {most_letters} letters: give less")
    if sum(text.startswith(_PICTURE) for text in inputs) > MOST_PICTURES:
        raise bad_input(f"input has more than {MOST_PICTURES} pictures: give fewer")


def _of_pictures(collection: Collection, pictures: dict[int, str], job: Job) -> dict[int, npt.NDArray[np.float32]]:
    """Computes the vectors (D,) of pictures, by place."""
    vectors = {}
    for place, url in pictures.items():
        job.check()
        head, _, content = url.partition(",")
        try:
            if not head.endswith(";base64"):
                raise ValueError
            picture = base64.b64decode(content, validate=True)
        except (ValueError, binascii.Error):
            raise bad_input("a picture of input is no data URL in base64: give data:image/png;base64,...") from None
        tokens = tokens_of_picture(collection.model, picture)
        vectors[place] = collection.model.scoring.pooled(tokens.clips[0].levels)[0]
    return vectors


def _document(
    collection: Collection, vectors: list[npt.NDArray[np.float32]], num_tokens: int, as_base64: bool
) -> dict[str, Any]:
    """Returns the response for N vectors (D,)."""
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
                if as_base64
                else vector.tolist(),
            }
            for place, vector in enumerate(vectors)
        ],
        "model": collection.model.bundle.manifest.name,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        "pooling": POOLING,
    }
