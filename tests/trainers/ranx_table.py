"""Makes ranx_cases.json: random scores with ties, and what ranx gives, averaged over the orders that the ties allow.

    pip install ranx==0.3.21 && python tests/trainers/ranx_table.py      (in an environment of its own)

ranx is no dependency: it needs numba, whose numpy is older than ours.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from ranx import Qrels, Run, evaluate

NAMES = {"mrr": "mrr", "ndcg_at_10": "ndcg@10", "recall_at_10": "recall@10"}


def placed(scores: list[int], target: int, place: int) -> dict[str, float]:
    """A strict order: by score, the target at `place` among its equals, other ties by number."""
    rivals = [item for item in range(len(scores)) if item != target and scores[item] == scores[target]]
    level = [*rivals[:place], target, *rivals[place:]]
    above = sorted((item for item in range(len(scores)) if scores[item] > scores[target]), key=lambda i: -scores[i])
    below = sorted((item for item in range(len(scores)) if scores[item] < scores[target]), key=lambda i: -scores[i])
    order = [*above, *level, *below]
    return {str(item): float(len(order) - rank) for rank, item in enumerate(order)}


def main() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(60):
        items, values = int(rng.integers(2, 40)), int(rng.integers(1, 30))
        scores = rng.integers(values, size=items).tolist()
        target = int(rng.integers(items))
        ties = sum(score == scores[target] for score in scores)
        found = dict.fromkeys(NAMES, 0.0)
        for place in range(ties):
            qrels, run = Qrels({"u": {str(target): 1}}), Run({"u": placed(scores, target, place)})
            got = evaluate(qrels, run, list(NAMES.values()))
            for name, theirs in NAMES.items():
                found[name] += float(got[theirs]) / ties
        cases.append({"scores": scores, "target": target, **found})
    Path(__file__).with_name("ranx_cases.json").write_text(json.dumps(cases, indent=None).replace("}, {", "},\n {"))


if __name__ == "__main__":
    main()
