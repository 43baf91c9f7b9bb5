"""Experiments: a plan, the runs it asks for, and the page that says what came out.

==============  ====================================================================================
``plan``        the plan file: methods, studies, seeds, what is measured when
``runs``        one run of a plan: its settings, their hash, its folder, whether it is finished
``driver``      the runs, one after the other, each a real ``main_ppo``; stopped and resumed at will
``findings``    what the finished runs say: ``results.json``
``figures``     the charts, as SVG files
``page``        the Markdown page
==============  ====================================================================================

It is a room of the package, not a folder beside it, so that imports, types and the house rules are checked as
everywhere, and a user can run a plan of their own: ``python -m verl_air.experiments PLAN``. Nothing else imports it.
"""
