"""Methods compared over seeds, by a plan that is written before the runs: ``python -m studies.experiment [PLAN]``.

==========  ==============================================================================================
``plan``    the plan file: methods, studies, seeds, what is measured when
``runs``    one training run: its settings, their hash, its folder, its attempts, its record
``driver``  the runs of a plan, one after the other, each a real ``main_ppo``; stopped and resumed at will
``report``  what the finished runs say: tables and charts, from their records alone
==========  ==============================================================================================

Plan, records and results are in one folder. This folder's own plan is archived; a new study is a plan in another one.
"""
