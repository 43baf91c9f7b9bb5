"""A run on a Ray cluster: what it needs, whether the cluster has it, and what happens when a node is lost.

==================  =================================================================================================
``needs.py``        the GPUs that a recipe asks for, and whether given nodes can hold them
``nodes.py``        the nodes that Ray knows, and a bounded wait for them
``preflight.py``    ``verl-air doctor`` on every node; versions compared between nodes
``supervise.py``    runs the training, watches the nodes, passes signals and the exit status on
==================  =================================================================================================

``verl-air launch`` puts these together; the scripts in ``scripts/cluster`` start the nodes and call it.
"""
