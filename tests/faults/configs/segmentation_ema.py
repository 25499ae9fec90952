_base_ = ['segmentation.py']
custom_hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)]
