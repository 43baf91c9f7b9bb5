"""How much does training on one framing change the others, in the two settings of the playground?"""
