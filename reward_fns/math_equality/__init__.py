"""When two mathematical answers are equal; the reward ``math`` asks.

============  ==================================================================================
``text``      spellings of one sign become that sign
``forms``     a text taken apart: equations, sets, tuples, intervals, numbers with units
``units``     every reading of a number with a unit, a currency or a percent sign
``exact``     an expression becomes an exact value
``numbers``   exact values: fractions, and what is too large for them
``compare``   the rules of equality; decides nearly every answer
``child``     what is left: math-verify, in a process that is killed when its time is up
============  ==================================================================================
"""
