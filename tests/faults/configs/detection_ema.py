_base_ = ['detection.py']
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
