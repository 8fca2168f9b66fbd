"""What the official caption scorer, coco-caption, gives: once for tests/golden, or for any captions.

    pip install --no-deps --target FOLDER pycocoevalcap==1.2     # 100 MB; and Java
    PYTHONPATH=FOLDER python tests/golden/make_caption_scores.py [FILE]

FILE (else caption_scores.json beside this script) is {"NAME": {"sets": [{"candidate": "...", "references": ["..."]}]}};
each NAME is a corpus of its own, and receives its scores, from 0 to 1 (CIDEr to 10), of the whole and of each set:

    tokens              of the candidate and of the references, by the Stanford tokenizer
    BLEU-4, METEOR, ROUGE-L, CIDEr
    METEOR-exact-stem   with the matchers "exact" and "stem" alone, as in hbi_training.evaluation.meteor
    METEOR-even         the same, with function words that count like others
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

EXACT_STEM = ["-m", "exact stem", "-w", "1.0 0.6"]
METEOR = {
    "METEOR": [],
    "METEOR-exact-stem": EXACT_STEM,
    "METEOR-even": [*EXACT_STEM, "-p", "0.85 0.2 0.6 0.5"],
}

Texts = dict[int, list[str]]


def meteor_scores(references: Texts, candidates: Texts, options: list[str]) -> dict[str, Any]:
    """The scores of METEOR 1.5, called as coco-caption does, with further options."""
    import pycocoevalcap.meteor.meteor as package

    jar = Path(package.__file__).parent / package.METEOR_JAR
    command = ["java", "-jar", "-Xmx2G", str(jar), "-", "-", "-stdio", "-l", "en", "-norm", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        statistics = []
        for number, texts in references.items():
            process.stdin.write(" ||| ".join(["SCORE", *texts, *candidates[number]]) + "\n")
            process.stdin.flush()
            statistics.append(process.stdout.readline().strip())
        process.stdin.write(" ||| ".join(["EVAL", *statistics]) + "\n")
        process.stdin.flush()
        each = [float(process.stdout.readline()) for _ in statistics]
        return {"corpus": float(process.stdout.readline()), "each": each}


def official_scores(sets: list[dict[str, Any]]) -> dict[str, Any]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    references = tokenizer.tokenize({n: [{"caption": text} for text in s["references"]] for n, s in enumerate(sets)})
    candidates = tokenizer.tokenize({n: [{"caption": s["candidate"]}] for n, s in enumerate(sets)})
    result: dict[str, Any] = {"tokens": [[candidates[n][0], *references[n]] for n in references]}
    (*_, bleu), (*_, bleu_of_each) = Bleu(4).compute_score(references, candidates)
    result["BLEU-4"] = {"corpus": bleu, "each": bleu_of_each}
    for name, scorer in (("ROUGE-L", Rouge()), ("CIDEr", Cider())):
        corpus, each = scorer.compute_score(references, candidates)
        result[name] = {"corpus": float(corpus), "each": [float(score) for score in each]}
    return result | {name: meteor_scores(references, candidates, options) for name, options in METEOR.items()}


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("caption_scores.json")
    content = json.loads(path.read_text())
    for corpus in content.values():
        corpus["official"] = official_scores(corpus["sets"])
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
