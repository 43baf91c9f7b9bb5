"""How large is the auxiliary term's gradient, and where does it point, seen from GRPO's?"""
