"""Where a run takes place: what it needs, whether the nodes have it, and what happens when one is lost.

=====================  ==============================================================================================
``model_shapes.py``    a model's sizes and parameter counts, from its ``config.json``, ``models.yaml`` or the hub
``layout.py``          parallel sizes of the trainer
``trainer_memory.py``  what one of the trainer's GPUs holds during an update
``vllm_memory.py``     the GPUs of vLLM, how it divides their memory, and what cannot fit there
``memory_plan.py``     the memory of every GPU of a recipe, by phase
``cpu_plan.py``        without a GPU: memory and time of a step, and sizes that follow the model
``nodes.py``           the GPUs that a recipe asks for, the nodes that Ray has, a bounded wait, checks on every node
``supervise.py``       runs the training, watches the nodes, passes signals and the exit status on
=====================  ==============================================================================================

``verl-air doctor`` and ``verl-air launch`` put the parts together; the scripts in ``scripts/cluster`` start the nodes
and call ``verl-air launch``.
"""
