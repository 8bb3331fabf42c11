"""File formats: KITTI, nuScenes, Omni3D, COCO, camera files, masks and depth maps."""
