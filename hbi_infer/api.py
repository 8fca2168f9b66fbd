"""The Python API: a model and the index of a folder, with the tasks as their methods.

with HBI.load().index("videos") as index:
    for match in index.search("a red circle moves left"):
        print(match.score, match.path, match.start_seconds)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hbi_engines.time_limit import LIMIT_SECONDS
from hbi_infer.index.folder_index import FolderIndex
from hbi_infer.model.encoder import Encoder
from hbi_infer.model.token_model import TokenModel
from hbi_infer.options import EVERYTHING, Answering, Decoding, Explaining, Filter, Finding, Searching

if TYPE_CHECKING:
    from hbi_infer.catalog.listener import Listener
    from hbi_infer.index.update import IndexProgress
    from hbi_infer.tasks.caption import Caption
    from hbi_infer.tasks.explain import Explanation
    from hbi_infer.tasks.qa import Answer
    from hbi_infer.tasks.rank_captions import CaptionMatch
    from hbi_infer.tasks.search import Match


class Index(FolderIndex):
    """The index of a folder of videos. Use `HBI.index`, or `open`."""

    def search(
        self, query: str | Sequence[str], options: Searching | None = None, *, top_k: int | None = None
    ) -> list[Match]:
        """Finds the clips that match a sentence best, or all of several; see `hbi_infer.tasks.search`.

        Args:
            query: A sentence, or several that a clip must all match.
            options: How to search.
            top_k: Largest number of results, in place of that of the options.

        Raises:
            InputError: The query is empty, or the options ask for reranking and there are several sentences.
            BundleError: The options ask for reranking, and the bundle has no reconstruction.
            IndexStoreError: The index is damaged.

        Warns:
            QueryTruncatedWarning: The query is too long.
        """
        from hbi_infer.tasks.search import search, search_all
        from hbi_infer.tasks.texts import encode_texts

        options = _searching(options, top_k)
        texts = encode_texts(self.encoder, [query] if isinstance(query, str) else query, "query")
        return search(self, texts, options)[0] if isinstance(query, str) else search_all(self, texts, options)

    def like(self, video: Path | str, options: Searching | None = None, *, top_k: int | None = None) -> list[Match]:
        """Finds the clips most like a video or a picture; see `hbi_infer.tasks.search.like`.

        Args:
            video: Any video, or a JPEG, PNG or WebP picture. One that is indexed and has not changed is not decoded.
            options: How to search.
            top_k: Largest number of results, in place of that of the options.

        Raises:
            InputError: There is no such file, or the options ask for reranking.
            VideoError: The file cannot be decoded.
            IndexStoreError: The index is damaged.
        """
        from hbi_infer.index.clip_tokens import video_tokens
        from hbi_infer.tasks.search import like

        return like(self, video_tokens(self.encoder, Path(video), self), _searching(options, top_k))

    def explain(self, video: Path | str, query: str, options: Explaining | None = None) -> Explanation:
        """Explains why a video matches a sentence; see `HBI.explain`."""
        return _explain(self.encoder, Path(video), query, options, self)

    def answer(self, question: str, options: Answering | None = None, *, where: Filter = EVERYTHING) -> list[Answer]:
        """Answers a question about each video that passes a filter, in order of path.

        Raises:
            BundleError: The bundle cannot answer questions.
            InputError: The question is empty or none.
            IndexStoreError: The index is damaged.

        Warns:
            QueryTruncatedWarning: The question is too long.
        """
        from hbi_infer.index.clip_tokens import clips_of_index
        from hbi_infer.tasks.qa import answer_clips, encode_questions

        asked = encode_questions(self.encoder, [question])
        return answer_clips(self.encoder, asked, clips_of_index(self, where), options)[0]

    def caption(self, options: Decoding | None = None, *, where: Filter = EVERYTHING) -> Iterator[Caption]:
        """Writes a caption for each clip of every video that passes a filter, in order of path and time.

        Raises:
            BundleError: The bundle writes no captions.
            IndexStoreError: The index is damaged.
        """
        from hbi_infer.index.clip_tokens import clips_of_index
        from hbi_infer.tasks.caption import caption_clips

        written = caption_clips(self.encoder, clips_of_index(self, where), options)
        return (caption for _, caption in written)


class HBI(TokenModel):
    """A model that searches, explains, answers and captions videos. Use `load`.

    Each graph of the bundle is loaded when it is first used, so that searching loads no video encoder.
    """

    @classmethod
    def load(
        cls,
        bundle: Path | str | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        limit_seconds: float = LIMIT_SECONDS,
        listener: Listener | None = None,
    ) -> Self:
        """Loads a model; one of the hub that is not on this machine is downloaded and converted first.

        Args:
            bundle: A bundle's folder or zip, "shapes" (the embedded model, which knows only coloured shapes),
                "everyday", or a model of the hub such as "openai/clip-vit-base-patch32", perhaps with "@revision"; by
                default what HBI_BUNDLE or `hbi-infer models use` names, else "shapes". A `Path` is never a name.
            device: "auto", "cpu", "cuda", "openvino", "tensorrt", "tensorrt-rtx"; some take a precision, as in
                "openvino:bf16". A device that cannot run here is an error, except for "auto".
            threads: Processor threads, by default one for each physical core.
            limit_seconds: Limit for loading a graph, and for running it once; a graph that is late is an error.
            listener: Told how a download goes on.

        Raises:
            InputError: Nothing fits the name.
            HubError: The hub does not give the model.
            BundleError: There is no bundle, or it cannot be used.
            DeviceError: The device is unknown or cannot run here.

        Warns:
            NameWarning: The name could mean two things.
        """
        from hbi_infer.catalog.catalog import resolve

        return super().load(resolve(bundle, listener), device=device, threads=threads, limit_seconds=limit_seconds)

    def index(
        self,
        folder: Path | str,
        *,
        location: Path | str | None = None,
        rebuild: bool = False,
        finding: Finding | None = None,
        retry_failed: bool = False,
        workers: int | None = None,
        progress: Callable[[IndexProgress], None] | None = None,
    ) -> Index:
        """Opens the index of a folder and brings it up to date; `Index.failures` names files that could not be read.

        Args:
            folder: The folder of videos.
            location: The index's file; by default in the user's cache folder.
            rebuild: Whether to throw away what an existing index holds.
            finding: Choice of the files that are videos; the index keeps it, and None takes the one that it keeps.
            retry_failed: Whether to try failed videos again though they have not changed.
            workers: Number of decoding processes.
            progress: Called at the start and after each video.

        Raises:
            InputError: There is no such folder, or no video in it.
            IndexStoreError: The index is of another model or folder, damaged, or cannot be written.
        """
        index = Index.open(folder, self, location=location, rebuild=rebuild)
        try:
            index.update(finding=finding, retry_failed=retry_failed, workers=workers, progress=progress)
        except BaseException:
            index.close()
            raise
        return index

    def search(
        self,
        videos: Path | str,
        query: str | Sequence[str],
        options: Searching | None = None,
        *,
        top_k: int | None = None,
        location: Path | str | None = None,
    ) -> list[Match]:
        """Searches a folder of videos for a sentence, after indexing what is new in it.

        For several queries, make the `index` once and search that. See `Index.search` for the rest.

        Args:
            videos: The folder.
            query: A sentence, or several that a clip must all match.
            options: How to search.
            top_k: Largest number of results, in place of that of the options.
            location: The index's file; by default in the user's cache folder.
        """
        with self.index(videos, location=location) as index:
            return index.search(query, options, top_k=top_k)

    def rank_captions(
        self,
        video: Path | str,
        captions: Sequence[str],
        *,
        top_k: int | None = None,
        videos: Path | str | None = None,
        location: Path | str | None = None,
    ) -> list[CaptionMatch]:
        """Orders sentences by how well they say what a video shows, best first.

        Args:
            video: Any video. One that is indexed and has not changed is not decoded.
            captions: Sentences.
            top_k: Largest number of results; None ranks all.
            videos: The folder whose index to look in; by default the nearest one above the video that has one.
            location: The file of that index; by default in the user's cache folder.

        Raises:
            InputError: There is no caption, one is empty, or there is no such video.
            VideoError: The video cannot be decoded.
            IndexStoreError: The index is damaged.

        Warns:
            QueryTruncatedWarning: A caption is too long.
            IndexedFileChangedWarning: The video has changed since it was indexed, and cannot be read any more.
        """
        from hbi_infer.index.clip_tokens import video_tokens
        from hbi_infer.tasks.rank_captions import rank_captions
        from hbi_infer.tasks.texts import encode_texts

        texts = encode_texts(self, captions, "caption")
        with self._index_for(video, videos, location) as index:
            return rank_captions(self, video_tokens(self, Path(video), index), texts, top_k=top_k)

    def explain(
        self,
        video: Path | str,
        query: str,
        options: Explaining | None = None,
        *,
        videos: Path | str | None = None,
        location: Path | str | None = None,
    ) -> Explanation:
        """Explains why a video matches a sentence: what each word and each frame are worth together.

        Args:
            video: Any video. One that is indexed and has not changed is not decoded.
            query: A sentence.
            options: The clip to explain; by default the one that matches best.
            videos: The folder whose index to look in; by default the nearest one above the video that has one.
            location: The file of that index; by default in the user's cache folder.

        Raises:
            InputError: The query is empty, or there is no such video or clip.
            VideoError: The video is not in the index and cannot be decoded.
            BundleError: The bundle does not say of any level which words and frames its tokens stand for.
            IndexStoreError: The index is damaged.

        Warns:
            QueryTruncatedWarning: The query is too long.
            IndexedFileChangedWarning: The video has changed since it was indexed, and cannot be read any more.
        """
        with self._index_for(video, videos, location) as index:
            return _explain(self, Path(video), query, options, index)

    def answer(
        self,
        video: Path | str,
        question: str,
        options: Answering | None = None,
        *,
        videos: Path | str | None = None,
        location: Path | str | None = None,
    ) -> Answer:
        """Answers a question about a video: the clip with the most probable answer speaks for it.

        Args:
            video: Any video. One that is indexed and has not changed is not decoded.
            question: A sentence.
            options: How many answers to name, and when to say "don't know". For an answer about each clip, or about
                each video of a folder, use the `answer` of an `index`.
            videos: The folder whose index to look in; by default the nearest one above the video that has one.
            location: The file of that index; by default in the user's cache folder.

        Raises:
            BundleError: The bundle cannot answer questions.
            InputError: The question is empty or none, or there is no such video.
            VideoError: The video is not in the index and cannot be decoded.
            IndexStoreError: The index is damaged.

        Warns:
            QueryTruncatedWarning: The question is too long.
            IndexedFileChangedWarning: The video has changed since it was indexed, and cannot be read any more.
        """
        from hbi_infer.index.clip_tokens import clips_of_video, video_tokens
        from hbi_infer.tasks.qa import answer_clips, encode_questions

        asked = encode_questions(self, [question])
        one = replace(options or Answering(), all_clips=False)
        with self._index_for(video, videos, location) as index:
            clips = clips_of_video(video_tokens(self, Path(video), index))
        return answer_clips(self, asked, clips, one)[0][0]

    def caption(
        self,
        video: Path | str,
        options: Decoding | None = None,
        *,
        videos: Path | str | None = None,
        location: Path | str | None = None,
    ) -> list[Caption]:
        """Writes a caption for each clip of a video; for a folder, use the `caption` of its `index`.

        Args:
            video: Any video. One that is indexed and has not changed is not decoded.
            options: How to choose words.
            videos: The folder whose index to look in; by default the nearest one above the video that has one.
            location: The file of that index; by default in the user's cache folder.

        Raises:
            BundleError: The bundle writes no captions.
            InputError: There is no such video.
            VideoError: The video is not in the index and cannot be decoded.
            IndexStoreError: The index is damaged.

        Warns:
            IndexedFileChangedWarning: The video has changed since it was indexed, and cannot be read any more.
        """
        from hbi_infer.index.clip_tokens import clips_of_video, video_tokens
        from hbi_infer.tasks.caption import caption_clips

        self.bundle.require("caption")  # before anything is decoded
        with self._index_for(video, videos, location) as index:
            clips = clips_of_video(video_tokens(self, Path(video), index))
        return [caption for _, caption in caption_clips(self, clips, options)]

    def _index_for(
        self, video: Path | str, videos: Path | str | None, location: Path | str | None
    ) -> AbstractContextManager[Index | None]:
        return Index.open_for(Path(video), self, folder=videos, location=location) or nullcontext()


def _searching(options: Searching | None, top_k: int | None) -> Searching:
    options = options or Searching()
    return options if top_k is None else replace(options, top_k=top_k)


def _explain(
    encoder: Encoder, video: Path, query: str, options: Explaining | None, index: FolderIndex | None
) -> Explanation:
    from hbi_infer.index.clip_tokens import video_tokens
    from hbi_infer.tasks.explain import explain
    from hbi_infer.tasks.texts import encode_texts

    asked = encode_texts(encoder, [query], "query")
    return explain(encoder, video_tokens(encoder, video, index), asked, options)
