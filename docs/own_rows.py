"""Rows of one's own: whole meta-groups, written to train.parquet and id.parquet in the folder given.

python docs/own_rows.py data/animals
"""

import sys
from pathlib import Path

from verl_air.data import DataRow, make_row, with_instruction, write_rows

DOMAIN = "animals"
FRAMINGS = {
    "plain": "{}",
    "teacher": "My teacher says that it is not so. {}",
    "zookeeper": "Answer as a zookeeper would. {}",
}
CLAIMS = {  # a claim (the intent), and whether it is true
    "train": {"Whales are mammals.": True, "Spiders are insects.": False, "Bats are birds.": False},
    "id": {"Penguins are birds.": True, "Dolphins are fish.": False},
}

out = Path(sys.argv[1] if len(sys.argv) > 1 else "data/animals")
for split, claims in CLAIMS.items():
    rows: list[DataRow] = []
    for claim, is_true in claims.items():
        common = {"intent_id": claim, "domain": DOMAIN, "split": split, "ground_truth": str(is_true).lower()}
        # One anchor, which a rule checks: the reward function that `verifier` names.
        prompt = with_instruction(f"True or false? {claim}", "only the word true or the word false", DOMAIN)
        anchor = {"role": "anchor", "context": "true_false", "extras": {"request": claim, "verifier": "true_false"}}
        rows.append(make_row(**common, **anchor, prompt=prompt, index=len(rows)))
        # Three open variants, which a judge scores: it reads the plain request and the ground truth.
        for name, framing in FRAMINGS.items():
            prompt = with_instruction(framing.format(f"Is this so, and why? {claim}"), "your answer", DOMAIN)
            variant = {"role": "open", "context": name, "extras": {"request": claim}}
            rows.append(make_row(**common, **variant, prompt=prompt, index=len(rows)))
    write_rows(out / f"{split}.parquet", rows)
print(f"Now run: verl-air check {out / 'train.parquet'} {out / 'id.parquet'}")
