"""A small synthetic world in which the whole method can be seen working in minutes, without a GPU: docs/playground.md.

==================  ==========================================================================
:mod:`.world`       intents, the hidden rule that makes them harmful or benign, the held-out split
:mod:`.framings`    open prompts of graded difficulty, in two settings: plain and hidden
:mod:`.language`    anchors, replies, the judge's question, and the tokenizer
:mod:`.rewards`     the judge and how it errs; the oracle, for evaluation only
:mod:`.dataset`     train, ID and OOD parquet files in the project's row schema
:mod:`.model`       a two-layer Qwen3 and its warm start
:mod:`.measure`     how often the warm-started model is right, by sampling
:mod:`.build`       all of it in one folder: ``python -m verl_air.playground --out DIR``
:mod:`.quickstart`  ``make quickstart``: build, train with AIR, show the result
==================  ==========================================================================
"""
