"""The glue to verl. Its private seams are used in five: trainer, replay_buffer, queue_io, actor_loss, verl_patches.

======================  ===============================================================================================
``preflight/``          a recipe is checked before anything starts
``sampler.py``          prompts leave the data set in whole meta-groups
``replay_buffer.py``    rollouts leave the queue in whole meta-groups
``rows.py``             what a prompt is called in the queue, and which row of the data it is
``batch.py``            a step's batch as arrays, and its weights
``queue_io.py``         what is read from TransferQueue and written back
``actor_loss.py``       the auxiliary term in the actor's loss
``metrics.py``          what a user watches
``best_checkpoint.py``  the checkpoint that validated best is kept
``run_folder.py``       what a run leaves behind
``trainer.py``          all of it put together, as a mixin on verl's trainers
``verl_patches.py``     faults of the installed verl, patched
======================  ===============================================================================================
"""
