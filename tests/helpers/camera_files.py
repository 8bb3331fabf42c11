"""Camera files as other programs write them."""

SAVED = """\
image_width: 640
image_height: 480
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [430.15433, 0.      , 306.19152,
           0.     , 430.60921, 227.37994,
           0.     , 0.      , 1.      ]
distortion_model: plumb_bob   # what camera_calibration writes
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0., 0., 0., 0., 0.]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]
projection_matrix:
  rows: 3
  cols: 4
  data: [355.63, 0., 303.70, 0., 0., 417.69, 223.17, 0., 0., 0., 1., 0.]
"""
