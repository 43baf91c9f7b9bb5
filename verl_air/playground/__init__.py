"""A small synthetic world in which the whole method can be seen working in minutes, without a GPU.

The rooms, in the order of the data's way:

==================  ==========================================================================
:mod:`.world`       intents, the hidden rule that makes them harmful or benign, the held-out split
:mod:`.prompts`     how an intent is asked: anchors, and open framings of graded difficulty
:mod:`.replies`     what a policy may answer, and which stance an answer takes
:mod:`.judging`     the judge's prompt, and how the judge errs
:mod:`.dataset`     train, ID and OOD parquet files in the project's row schema
:mod:`.tokenizer`   a word-level tokenizer for exactly this world
:mod:`.model`       a two-layer Qwen3
:mod:`.warm_start`  supervised steps: knows the anchors, is fooled by framings, can judge
:mod:`.measure`     how often the warm-started model is right, by sampling
:mod:`.rewards`     the oracle, for evaluation only
:mod:`.build`       all of it into one folder: ``python -m verl_air.playground --out DIR``
==================  ==========================================================================
"""
