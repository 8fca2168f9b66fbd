"""`shapes`: short clips of coloured shapes that move, drawn procedurally, with captions, questions and near misses.

scene.py      scenes: things, events, splits that share no attribute combination
render.py     pixels of a scene at any times and any size
captions.py   captions of a scene, and texts that are nearly but not quite true of it
reading.py    parsing a caption, and checking it against a scene
questions.py  questions with one short answer
dataset.py    folders of mp4 files with JSONL manifests
"""

from __future__ import annotations

from hbi_training.data.shapes.captions import captions, hard_negatives
from hbi_training.data.shapes.dataset import captions_right, scene_at, scenes, write_shapes
from hbi_training.data.shapes.questions import ANSWERS, questions
from hbi_training.data.shapes.reading import attributes_right
from hbi_training.data.shapes.render import render
from hbi_training.data.shapes.scene import Combination, Scene, compose, sample_scene, split_of

__all__ = [
    "ANSWERS",
    "Combination",
    "Scene",
    "attributes_right",
    "captions",
    "captions_right",
    "compose",
    "hard_negatives",
    "questions",
    "render",
    "sample_scene",
    "scene_at",
    "scenes",
    "split_of",
    "write_shapes",
]
